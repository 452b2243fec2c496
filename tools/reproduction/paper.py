"""What the paper reports (Liu & Hsieh, Rob-GAN, CVPR 2019), each with its place. Accuracies in per cent."""

from __future__ import annotations

# Table 1, accuracy under l-inf PGD by epsilon on the pixel scale [-1, 1].
TABLE1 = {
    "cifar10": {
        "place": "Table 1, CIFAR-10",
        "epsilons": (0.0, 0.02, 0.04, 0.08),
        "adversarial_training": (81.45, 69.15, 53.74, 23.58),
        "robgan": (81.1, 70.41, 57.43, 30.25),
    },
    "imagenet64": {
        "place": "Table 1, ImageNet-143, 64 px",
        "epsilons": (0.0, 0.01, 0.02, 0.03),
        "adversarial_training": (20.05, 18.3, 12.52, 8.32),
        "robgan": (32.4, 25.2, 19.1, 13.7),
    },
}

# ResNet-18 on CIFAR-10, adversarially trained without and with generated images.
SECTION1 = {
    "cifar10": {
        "place": "section 1",
        "adversarial_training_preact_resnet18": 29.6,
        "generated_preact_resnet18": 36.4,
    }
}

# Epochs within which Rob-GAN has passed SN-GAN's best inception score, at most.
FIG8 = {
    "imagenet64": {"place": "Fig. 8, left", "epochs": 25, "times_faster": (3, 7)},
    "imagenet128": {"place": "Fig. 8, right", "epochs": 50, "times_faster": (3, 7)},
}

# What the figures say in words, where they have no numbers.
IN_WORDS = {
    "fig2": "Fig. 2 (VGG16, CIFAR-10): accuracy under attack and the local Lipschitz value hold on training images and "
    "not on test images; the gap grows with the epochs.",
    "fig6": "Fig. 6: fine-tuning raises the accuracy under attack; with generated images the gap between training and "
    "test accuracy is smaller.",
    "fig7": "Fig. 7: with the AC-GAN loss and the attacker images of a class are all alike; with the split loss they "
    "vary.",
    "fig8": "Fig. 8: attacker and split loss together train fastest, 3 to 7 times faster than SN-GAN.",
}
