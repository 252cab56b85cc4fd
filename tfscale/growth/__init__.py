"""Growth by parameter tokens: from a training state to a larger one."""
