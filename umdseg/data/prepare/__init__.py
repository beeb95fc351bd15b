"""`umdseg prepare`: a scanner's folder or a public dataset -> images, labels, a manifest."""
