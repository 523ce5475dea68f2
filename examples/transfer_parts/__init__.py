"""Parts of the transfer studies: tables and curves of any, and the breast cancer cohorts."""
