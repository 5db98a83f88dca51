"""What leaves the house: plain checkpoints, PEFT adapters, GGUF control vectors, and the names adapters use."""
