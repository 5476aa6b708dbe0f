"""The line on one GPU: a frame's planes uploaded, enlarged and downloaded, with all between them on the device.

upscaler ──► slot (buffers, CUDA graphs) ──► enlarger ──► planes, projection
└──► routing (which patches changed) ──► worth (whether that pays)
"""
