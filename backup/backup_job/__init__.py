"""What a Job of a backup runs: `python3 -m backup_job <command>`.

It uses Python's standard library, restic and ssh, and shares no module with the service: the Job's pod has nothing of
the service but a file with its request.
"""
