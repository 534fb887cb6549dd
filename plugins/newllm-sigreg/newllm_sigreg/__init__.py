"""SIGReg and VICReg as regularizers of newllm."""
