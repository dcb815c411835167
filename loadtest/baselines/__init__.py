"""What the same model is served with today: small servers, each as its own documentation recommends."""
