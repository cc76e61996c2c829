"""What a pipeline is told: kept in columns, checked at the door, made a plan and a run when somebody asks."""
