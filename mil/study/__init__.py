"""What is wrong with a cohort and its features, found before anything is trained: one module a subject.

Every check is a function of what was read already, and gives findings. None stops the others.
"""
