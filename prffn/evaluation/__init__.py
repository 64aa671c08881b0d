"""What a network is worth: PSNR, SSIM, LPIPS, time and memory."""
