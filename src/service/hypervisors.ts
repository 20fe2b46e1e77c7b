// Which hypervisor makes a domain: the place where a configuration's `kind` becomes code.

import type {
  BootConfig,
  HypervisorConfig,
  PrimaryDomainConfig,
  SecondaryDomainConfig,
} from '../config/schema.js';
import {
  openEmbeddedSource,
  openEmbeddedTarget,
  type BuiltinGuest,
  type EmbeddedConfig,
  type ImageGuest,
} from '../hypervisor/embedded/index.js';
import type { SourceDomain, TargetDomain } from '../hypervisor/port.js';

type DomainConfig = Pick<PrimaryDomainConfig | SecondaryDomainConfig, 'name'> & {
  readonly hypervisor: HypervisorConfig;
};

interface Hypervisor {
  source(config: DomainConfig): Promise<SourceDomain>;
  target(config: DomainConfig): Promise<TargetDomain>;
}

const hypervisors: Readonly<Record<HypervisorConfig['kind'], Hypervisor>> = {
  embedded: {
    source: (config) => openEmbeddedSource(embedded(config)),
    target: (config) => openEmbeddedTarget(embedded(config)),
  },
};

/** Fails with HypervisorError BAD_CONFIGURATION or FAILED. */
export function openSource(config: DomainConfig): Promise<SourceDomain> {
  return hypervisors[config.hypervisor.kind].source(config);
}

/** Fails with HypervisorError BAD_CONFIGURATION or FAILED. */
export function openTarget(config: DomainConfig): Promise<TargetDomain> {
  return hypervisors[config.hypervisor.kind].target(config);
}

function embedded({ name, hypervisor }: DomainConfig): EmbeddedConfig {
  const { memoryBytes, boot } = hypervisor;
  return { name, memoryBytes, guest: boot.kind === 'guest' ? builtin(boot) : image(boot) };
}

function builtin({ dirtyPages, workingSetPages, tickMs }: BootConfig & { kind: 'guest' }): BuiltinGuest {
  return { kind: 'builtin', dirtyPages, workingSetPages, tickMs };
}

function image(boot: BootConfig & { kind: 'image' }): ImageGuest {
  const { bios, vgaBios, kernel, initrd, commandLine, multiboot, disk, cdrom, floppy } = boot;
  return {
    kind: 'image',
    ...(bios !== undefined && { bios }),
    ...(vgaBios !== undefined && { vgaBios }),
    ...(kernel !== undefined && { kernel }),
    ...(initrd !== undefined && { initrd }),
    ...(commandLine !== undefined && { commandLine }),
    ...(multiboot !== undefined && { multiboot }),
    ...(disk !== undefined && { hda: disk }),
    ...(cdrom !== undefined && { cdrom }),
    ...(floppy !== undefined && { fda: floppy }),
  };
}
