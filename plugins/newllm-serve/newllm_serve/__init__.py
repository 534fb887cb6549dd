"""newllm models behind the interface of OpenAI's: many texts at once, each one vector."""
