"""What a strategy's stored back-test is worth: the trials made so far, the verdict, and strategies side by side."""
