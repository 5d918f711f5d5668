"""From radiographs with truths to a bundle: networks, augmentation, training, calibration, export.

The only room that imports PyTorch; ``calibration``, ``updating``,
``learning_curve`` and ``recalibration`` do not, so that a site can calibrate with a base install.
Nothing is imported here, so that each user pays for what it uses.

Does not: serve; nothing of this room is needed once a bundle is written.
"""
