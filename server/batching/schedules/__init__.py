"""Global schedules: one schedule per platform x type x interval, shared by the businesses of many teams."""
