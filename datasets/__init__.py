import os

# Unless these are set before its import, OpenCV refuses large pictures and prints messages of its own.
for _limit in ("PIXELS", "WIDTH", "HEIGHT"):
    os.environ.setdefault(f"OPENCV_IO_MAX_IMAGE_{_limit}", str(2**40))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
