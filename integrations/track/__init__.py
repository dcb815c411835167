"""Objects of a video with the same number from frame to frame: a file, a camera or a webcam, and a Nereid server.

    source --newest frame--> JPEG --N requests in flight--> predictions, in order --tracker--> JSON lines, a drawn video

The server keeps nothing between two images: what is remembered of a video is in this process. It needs this folder
and the packages of its `requirements.txt`, not the rest of the project.
"""
