"""A sandbox around one program, without root: Landlock, seccomp, and namespaces where the kernel lets us have them.

kernel      the system calls, by ctypes
landlock    which files and TCP ports
seccomp     which system calls; pure
rooms       namespaces with a root of their own
grants      what a program may read and write
means       what of all this the kernel here gives, and what therefore does not hold
enter       all of it, in the order that works
"""
