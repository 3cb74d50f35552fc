"""The whole path of a volume on a GPU: from its voxels to its labels, without leaving the device in between."""
