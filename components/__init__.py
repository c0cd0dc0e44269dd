"""The SmartPhotoCrafter library: everything the pipeline and the command line do, free of ZenML and MLflow."""
