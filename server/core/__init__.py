"""Pure rules shared by two or more systems: values in, values out, no clock, no chance, no input or output."""
