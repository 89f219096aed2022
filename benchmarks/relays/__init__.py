"""What people build today, to be measured beside Wakeline."""
