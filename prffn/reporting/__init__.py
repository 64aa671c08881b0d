"""What people read: tables, figures and pages, written from the records."""
