"""What is injected into the training process, and the contract that both sides share."""
