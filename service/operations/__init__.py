"""What can be done to a server, one function a verb, whoever asks for it: an HTTP call today.

Knows who calls and what is asked, and no Flask. It reaches Kubernetes, Helm and file access through the types in
`interfaces.py` alone, so it may not import `cluster` or `helm`; of the rest below it, it may use all.
"""
