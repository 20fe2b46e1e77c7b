// What a managed QEMU is configured with, and what its command line becomes.
//
//   fd 0, 1  monitor (QMP)   fd 4  guest RAM                fd 6  the image with a device state to load (standby)
//   fd 3     serial port     fd 5  device state, written at each checkpoint
//
// The monitor has a pipe for each direction: a QEMU that ends by itself closes both, and what it said last (why it ends)
// can be read even if a command was being written to it. From one socket it could not.
//
// Sockets and files are handed over as descriptors: there is nothing with a name that could be left behind.

import { badConfiguration, type HypervisorError } from '../port.js';
import { PAGE_SIZE } from '../../stream/format.js';
import type { ReplicationOptions } from './machine.js';
import type { DirtyWay } from './memory/dirty.js';
import { withSteadyFiles, type DiskOptions } from './disks/drives.js';
import { networkArguments, type NetworkDevice } from './network/network.js';
import { stateNode } from './state/state-image.js';

export interface QemuConfig {
  readonly name: string;
  readonly memoryBytes: number;
  /** Default: qemu-system-x86_64, as PATH has it. */
  readonly binary?: string;
  /** As for -accel. Default: kvm. */
  readonly accelerator?: string;
  /** As for -machine, without memory-backend. Default: q35. */
  readonly machine?: string;
  /** As for -cpu. Default: QEMU's. */
  readonly cpu?: string;
  /** As for -smp. Default: 1. */
  readonly cpus?: number;
  /** Its outputs are held on a primary; the same on both sides, but for what they are plugged into. */
  readonly network?: readonly NetworkDevice[];
  /**
   * Whatever else makes the machine: kernel, disks. No network devices: they belong into `network`, where their output is
   * held. What leaves the guest by serial ports and character devices made here is not held.
   */
  readonly arguments?: readonly string[];
  /** How changed pages are found. Default: auto, the best that works. */
  readonly dirty?: DirtyWay | 'auto';
  /** Where guest RAM lies, a tmpfs with room for all of it. Default: /dev/shm. */
  readonly memoryDirectory?: string;
  /** Writable disks (their -drive or -blockdev names) that both hosts see: shared storage. */
  readonly sharedDisks?: readonly string[];
  /** Of other writable disks, which are replicated, by the same names: where it is not the default. */
  readonly disks?: Readonly<Record<string, DiskOptions>>;
  /** How these are replicated, beside that. */
  readonly replication?: ReplicationOptions;
  /**
   * Of a standby: which checkpoints QEMU loads on trial. each; auto (default): as many as take a twentieth of one core;
   * first: only the first of a stream.
   */
  readonly trialLoads?: TrialLoads;
  /** Its host has no network for it: taps are made in one of its own, with nothing in it, and end with it. */
  readonly isolated?: boolean;
}

export type TrialLoads = 'each' | 'auto' | 'first';

/** primary: has a guest. standby: is filled, and loads device states. probe: is asked what it is, no more. */
export type QemuRole = 'primary' | 'standby' | 'probe';

export const Fd = { SERIAL: 3, RAM: 4, STATE: 5, IMAGE: 6 } as const;

export const RAM_ID = 'romulus-ram';
export const STATE_PATH = `/proc/self/fd/${Fd.STATE}`;
export const IMAGE_PATH = `/proc/self/fd/${Fd.IMAGE}`;
const MEMORY_BYTES_MIN = 2 ** 20;
/** More than any machine type of QEMU takes. */
const MEMORY_BYTES_MAX = 2 ** 40;

/** What Romulus says itself, or what cannot go together with it. */
const RESERVED = new Set(
  [
    ...['m', 'M', 'machine', 'accel', 'enable-kvm', 'cpu', 'smp', 'name', 'S', 'incoming', 'loadvm'],
    ...['daemonize', 'pidfile', 'snapshot', 'mem-path', 'mem-prealloc', 'no-shutdown', 'runas', 'chroot'],
  ].flatMap((option) => [`-${option}`, `--${option}`]),
);

const NETWORK = new Set(['netdev', 'nic', 'net'].flatMap((option) => [`-${option}`, `--${option}`]));

/** @throws HypervisorError BAD_CONFIGURATION */
export function checkConfig(config: QemuConfig): void {
  const refuse = (key: string, value: string | number, expected: string): HypervisorError =>
    badConfiguration(`${key} must be ${expected}`, { key, value });
  const { memoryBytes, machine, cpus } = config;
  if (
    !Number.isInteger(memoryBytes) ||
    memoryBytes % MEMORY_BYTES_MIN !== 0 ||
    memoryBytes < MEMORY_BYTES_MIN ||
    memoryBytes > MEMORY_BYTES_MAX
  ) {
    throw refuse('memoryBytes', memoryBytes, 'whole mebibytes, at least one');
  }
  if (cpus !== undefined && (!Number.isInteger(cpus) || cpus < 1)) throw refuse('cpus', cpus, 'at least 1');
  if (machine?.includes('memory-backend') === true) {
    throw refuse('machine', machine, 'without memory-backend, which Romulus adds');
  }
  for (const argument of config.arguments ?? []) {
    if (NETWORK.has(argument)) {
      const why = 'in `network` their output is held until a checkpoint covers it';
      throw refuse('arguments', argument, `without network devices: ${why}`);
    }
    if (RESERVED.has(argument)) {
      throw refuse('arguments', argument, `without ${argument}, which Romulus says itself or cannot have`);
    }
  }
  // What no argument of a process can hold.
  const words = [config.binary ?? '', ...commandLine(config, 'primary')];
  const spoilt = words.find((word) => word.includes('\0'));
  if (spoilt !== undefined) throw refuse('arguments', spoilt, 'without NUL');
}

/** QEMU's arguments. Both sides must say the same, but for what follows from the role. */
export function commandLine(config: QemuConfig, role: QemuRole): string[] {
  const { name, memoryBytes, accelerator = 'kvm', machine = 'q35', cpu, cpus = 1 } = config;
  // The id of the backend is the name of the RAM block: the same on both sides.
  const backend = `memory-backend-file,id=${RAM_ID},size=${memoryBytes},mem-path=/proc/self/fd/${Fd.RAM},share=on`;
  return [
    ...['-name', name.replaceAll(',', ',,'), '-nodefaults', '-no-user-config', '-display', 'none', '-S'],
    ...['-accel', accelerator, '-machine', `${machine},memory-backend=${RAM_ID},suppress-vmdesc=on`],
    ...(cpu === undefined ? [] : ['-cpu', cpu]),
    ...['-smp', String(cpus), '-m', `${memoryBytes / MEMORY_BYTES_MIN}M`, '-object', backend],
    ...['-chardev', 'stdio,id=romulus-qmp,signal=off', '-mon', 'chardev=romulus-qmp,mode=control'],
    ...['-chardev', `socket,id=romulus-serial,fd=${Fd.SERIAL}`, '-serial', 'chardev:romulus-serial'],
    // A device whose state cannot be saved is refused, now and when it is plugged in later.
    '-only-migratable',
    // The device state that we load has neither the configuration section of a migration nor its description.
    ...['-global', 'migration.send-configuration=off'],
    ...networkArguments(config.network ?? [], machine),
    ...withSteadyFiles(config),
    ...(role === 'standby' ? ['-blockdev', JSON.stringify(stateNode(IMAGE_PATH))] : []),
    // Its disks may be in use by the primary's QEMU: this way they are not opened for writing.
    ...(role === 'probe' ? ['-incoming', 'defer'] : []),
  ];
}

export function pagesOf(config: QemuConfig): number {
  return config.memoryBytes / PAGE_SIZE;
}
