"""The controller of OpenFlow switches and of the hypervisors on its machine."""
