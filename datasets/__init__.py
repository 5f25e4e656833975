import os

# OpenCV refuses large pictures, and says what goes wrong in its own words, unless told otherwise before its import.
for _limit in ("PIXELS", "WIDTH", "HEIGHT"):
    os.environ.setdefault(f"OPENCV_IO_MAX_IMAGE_{_limit}", str(2**40))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
