"""What is computed in another way than its formula says; switching it off changes no result."""
