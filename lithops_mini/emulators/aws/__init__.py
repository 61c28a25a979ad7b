"""A local AWS: moto's services, with signatures and policies checked, and functions run by AWS's own runtime client."""
