"""The two stages, co-training and fine-tuning, what they minimise, and the loop that trains them."""
