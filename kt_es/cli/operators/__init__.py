"""Commands of operators: init, up, signer, frontend, monitor, config, status, snapshot."""
