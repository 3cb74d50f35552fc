"""The steps. Each says all that it needs itself: the tables as they are today are none of its business."""
