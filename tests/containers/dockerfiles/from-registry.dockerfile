#: fails is not one of this server's registries
#: differs buildah would ask a registry.
FROM registry.invalid/some/image:1
