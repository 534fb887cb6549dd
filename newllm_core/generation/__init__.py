"""From a model to text: choosing tokens, showing them, chats, and states to go on from later."""
