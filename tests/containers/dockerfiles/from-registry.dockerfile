#: fails walt image clone
#: differs buildah would ask a registry.
FROM registry.invalid/some/image:1
