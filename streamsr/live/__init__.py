"""Live: one source to the screen now, through the best generator that is in time."""

import cv2  # noqa: F401 (before PyAV, whose X11 libraries hang the windows of an OpenCV that is loaded after it)
