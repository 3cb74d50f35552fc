"""What a sender's archive knows of a series: how many instances, which ones, and the instances themselves."""
