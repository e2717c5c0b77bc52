"""What watches and steers a solve."""
