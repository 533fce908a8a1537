"""Strategies that deal a model out to several processes; Lightning's own (``ddp``) deal out data alone."""
