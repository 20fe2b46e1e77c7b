// Which hypervisor makes a domain: the place where a configuration's `kind` becomes code.

import type {
  BootConfig,
  EmbeddedConfig as EmbeddedSection,
  HypervisorConfig,
  QemuHypervisorConfig,
} from '../config/hypervisor.js';
import {
  openEmbeddedSource,
  openEmbeddedTarget,
  type BuiltinGuest,
  type EmbeddedConfig,
  type ImageGuest,
} from '../hypervisor/embedded/index.js';
import { HypervisorError, type SourceDomain, type TargetDomain } from '../hypervisor/port.js';
import {
  attachQemuSource,
  openQemuSource,
  openQemuTarget,
  type AttachConfig,
  type QemuConfig,
} from '../hypervisor/qemu/index.js';

interface DomainConfig {
  readonly name: string;
  readonly hypervisor: HypervisorConfig;
}

/**
 * @param signal gives up what lasts
 * @throws HypervisorError BAD_CONFIGURATION, UNSUPPORTED, OUT_OF_MEMORY or FAILED
 */
export function openSource({ name, hypervisor }: DomainConfig, signal?: AbortSignal): Promise<SourceDomain> {
  switch (hypervisor.kind) {
    case 'embedded':
      return openEmbeddedSource(embedded(name, hypervisor));
    case 'qemu':
      return hypervisor.mode === 'managed'
        ? openQemuSource(managedQemu(name, hypervisor), signal)
        : attachQemuSource(attachedQemu(name, hypervisor));
  }
}

/** As openSource. */
export function openTarget({ name, hypervisor }: DomainConfig, signal?: AbortSignal): Promise<TargetDomain> {
  switch (hypervisor.kind) {
    case 'embedded':
      return openEmbeddedTarget(embedded(name, hypervisor));
    case 'qemu':
      if (hypervisor.mode === 'managed') return openQemuTarget(managedQemu(name, hypervisor), signal);
      return Promise.reject(
        new HypervisorError('BAD_CONFIGURATION', 'a standby runs in a QEMU that is started here', { name }),
      );
  }
}

type ManagedQemu = Extract<QemuHypervisorConfig, { mode: 'managed' }>;
type AttachedQemu = Extract<QemuHypervisorConfig, { mode: 'attached' }>;

export function managedQemu(name: string, section: ManagedQemu): QemuConfig {
  const { binary, accelerator, machine, cpus, memoryBytes, dirty, sharedDisks, trialLoads } = section;
  const { cpu, memoryDirectory, network, disks } = section;
  return {
    ...{ name, binary, accelerator, machine, cpus, memoryBytes, dirty, sharedDisks, trialLoads },
    ...given({ cpu, memoryDirectory }),
    arguments: section.arguments,
    disks,
    network: network.map(({ id, backend, mac, model }) => ({ id, backend, ...given({ mac, model }) })),
  };
}

export function attachedQemu(
  name: string,
  { qmp, serial, sharedDisks, disks, netdevs }: AttachedQemu,
): AttachConfig {
  return { name, monitor: qmp, sharedDisks, disks, netdevs, ...given({ serial }) };
}

function embedded(name: string, { memoryBytes, boot }: EmbeddedSection): EmbeddedConfig {
  return { name, memoryBytes, guest: guestOf(boot) };
}

function guestOf(boot: BootConfig): BuiltinGuest | ImageGuest {
  if (boot.kind === 'guest') return { ...boot, kind: 'builtin' };
  const { kind, disk, floppy, ...same } = boot;
  return { kind, ...given({ ...same, hda: disk, fda: floppy }) };
}

/** What the section leaves out is left out. */
function given<Fields extends object>(
  fields: Fields,
): { [Key in keyof Fields]?: Exclude<Fields[Key], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Fields;
}
