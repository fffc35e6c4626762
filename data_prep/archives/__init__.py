"""Reading zip, tar, rar and 7z archives, in one file or in parts."""
