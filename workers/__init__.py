"""The provider side: takes calls from the queue, runs them, sends frames back."""
