"""The methods: each says what to train on and which loss."""
