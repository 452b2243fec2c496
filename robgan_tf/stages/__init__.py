"""The stages of Rob-GAN: co-training of the three players, then fine-tuning of the classifier."""
