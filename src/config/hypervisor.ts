// Which hypervisor runs a domain, and what the domain is. One section for each hypervisor, told apart by `kind`; a new
// hypervisor adds its section to the union at the end.

import { z } from 'zod';
import { choice, distinct, flag, list, named, pathField, problem, section, size } from './fields.js';
import { text, wholeNumber } from './fields.js';
import type { Resolve } from './fields.js';

/** A page, and the guest's count of how often it rewrote it. */
const WORKING_SET_PAGE_BYTES = 4096 + 4;
const MEBIBYTE = 2 ** 20;

/** The first megabyte is the PC's, the second holds the guest itself. */
const GUEST_RESERVED_BYTES = 2 * MEBIBYTE;
/** The emulator puts an initrd at 64 MiB at most. */
const INITRD_MEMORY_BYTES = 64 * MEBIBYTE;
const DEFAULT_QEMU_MEMORY_BYTES = 512 * MEBIBYTE;

/** The guest that Romulus brings: it rewrites memory and a disk at a known rate, and checks them. */
function guestSchema() {
  return section({
    dirtyPages: wholeNumber(0, 2 ** 19).default(200),
    workingSetPages: wholeNumber(1, 2 ** 19).default(1024),
    tickMs: wholeNumber(1, 60_000, 'a whole number of milliseconds from 1 to 60000').default(50),
    diskBlocks: wholeNumber(0, 2 ** 16).default(0),
  }).check((context) => {
    const { dirtyPages, workingSetPages: most } = context.value;
    if (dirtyPages > most) problem(context, ['dirtyPages'], `at most guest.workingSetPages (${most})`);
  });
}

/** Anything else that the emulator boots. */
function imageSchema(resolve: Resolve) {
  const file = () => pathField(resolve);
  return section({
    bios: file().optional(),
    vgaBios: file().optional(),
    kernel: file().optional(),
    initrd: file().optional(),
    commandLine: text('the command line of the kernel').optional(),
    multiboot: file().optional(),
    disk: file().optional(),
    cdrom: file().optional(),
    floppy: file().optional(),
  }).check((context) => {
    const { bios, kernel, multiboot, disk, cdrom, floppy, initrd, commandLine } = context.value;
    const refuse = (key: string, expected: string) => problem(context, [key], expected);
    if ([kernel, multiboot, disk, cdrom, floppy].every((source) => source === undefined)) {
      problem(context, [], 'something to boot: one of kernel, multiboot, disk, cdrom, floppy');
    }
    // The emulator brings no BIOS, and without one it boots multiboot images only.
    if (bios === undefined && multiboot === undefined) refuse('bios', 'a BIOS, or a multiboot image');
    if (bios === undefined && kernel !== undefined) refuse('kernel', 'no kernel without bios');
    if (initrd !== undefined && kernel === undefined) refuse('initrd', 'no initrd without kernel');
    if (commandLine !== undefined && kernel === undefined && multiboot === undefined) {
      refuse('commandLine', 'no commandLine without kernel or multiboot');
    }
  });
}

function embeddedSchema(resolve: Resolve) {
  const isPowerOfTwo = (octets: number) => Number.isInteger(Math.log2(octets));
  return section({
    kind: z.literal('embedded'),
    memory: size('4MiB', '1GiB', isPowerOfTwo, ' that is a power of two').prefault('64MiB'),
    guest: guestSchema().optional(),
    image: imageSchema(resolve).optional(),
  })
    .check((context) => {
      const { memory, guest, image } = context.value;
      if (guest && image) problem(context, ['image'], 'either guest or image, not both');
      if (image?.initrd !== undefined && memory < INITRD_MEMORY_BYTES) {
        problem(context, ['memory'], 'at least 64MiB where image.initrd is given');
      }
      if (image) return;
      const workingSetPages = guest?.workingSetPages ?? guestSchema().parse({}).workingSetPages;
      const room = Math.max(0, Math.floor((memory - GUEST_RESERVED_BYTES) / WORKING_SET_PAGE_BYTES));
      if (workingSetPages <= room) return;
      const expected = `at most ${room} pages in this memory, not ${workingSetPages}`;
      problem(context, ['guest', 'workingSetPages'], expected);
    })
    .transform(({ kind, memory, guest, image }) => ({
      kind,
      memoryBytes: memory,
      boot: image
        ? { kind: 'image' as const, ...image }
        : { kind: 'guest' as const, ...(guest ?? guestSchema().parse({})) },
    }));
}

/** A network device of a QEMU: of one that Romulus starts with what it is plugged into, else the id of its netdev. */
function networkSchema() {
  const id = 'an id of at most 32 letters, digits and hyphens that begins with a letter';
  const mac = 'an address such as 52:54:00:00:00:01';
  return list(
    section({
      id: text(id).regex(/^[a-z][a-z0-9-]{0,31}$/i, { error: id }),
      mac: text(mac)
        .regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i, { error: mac })
        .optional(),
      model: text('the type of a network card, as for -device').optional(),
      tap: text('the name of a tap').optional(),
      user: text('options as for -netdev user').optional(),
      socket: text('options as for -netdev socket').optional(),
    }),
    0,
    16,
    'a list of at most 16 network devices',
  ).check(distinct('id', 'an id that no other device here has'));
}

type Network = z.output<ReturnType<typeof networkSchema>>;

/** What only a QEMU that Romulus starts is told. */
const MANAGED_KEYS = [
  ...(['binary', 'accelerator', 'machine', 'cpu', 'cpus', 'memory', 'memoryDirectory'] as const),
  ...(['arguments', 'dirty', 'trialLoads'] as const),
];
const PLUGS = ['tap', 'user', 'socket'] as const;

/** A primary stops its guest before the secondary may take over, but not one whose host or agent stands still. */
const FENCE_NEEDED =
  '"fence: external" beside sharedDisks, where the storage or the cluster keeps an old primary from writing ' +
  '(SCSI reservations, a power switch): a primary that is frozen cannot stop its guest, and both would write to the disk';

/** Of disks that the guest may write to, by the names of their -drive or -blockdev. One that is not named is replicated. */
function disksSchema() {
  const name = 'the name of a -drive (its id) or of a -blockdev (its node-name)';
  const disk = section({
    mode: choice(['replicate', 'shared']).default('replicate'),
    durability: choice(['strict', 'relaxed']).default('strict'),
    size: size('1MiB', '64TiB', (octets) => octets % 512 === 0, ' in whole sectors of 512 octets').optional(),
    preallocate: flag().default(false),
  }).check((context) => {
    const { mode, durability, size: given, preallocate } = context.value;
    if (mode === 'replicate') return;
    if (durability !== 'strict') problem(context, ['durability'], 'strict: a shared disk is not replicated');
    if (given !== undefined) problem(context, ['size'], 'no size: nobody makes a shared disk here');
    if (preallocate) problem(context, ['preallocate'], 'false: nobody makes a shared disk here');
  });
  return named(text(name), disk, 256, `a section for each of at most 256 disks, by ${name}`);
}

function qemuSchema(resolve: Resolve) {
  const strings = (what: string, maximum: number) =>
    list(text(what), 0, maximum, `a list of at most ${maximum}: each ${what}`);
  return section({
    kind: z.literal('qemu'),
    qmp: pathField(resolve).optional(),
    serial: pathField(resolve).optional(),
    binary: text('a program, by its name or path').optional(),
    accelerator: text('as for -accel, such as kvm or tcg').optional(),
    machine: text('as for -machine, such as q35').optional(),
    cpu: text('as for -cpu').optional(),
    cpus: wholeNumber(1, 255).optional(),
    memory: size('1MiB', '1024GiB', (octets) => octets % MEBIBYTE === 0, ' in whole MiB').optional(),
    memoryDirectory: pathField(resolve).optional(),
    arguments: strings('an argument for QEMU', 1024).optional(),
    dirty: choice(['auto', 'fuse', 'compare']).optional(),
    network: networkSchema().default([]),
    sharedDisks: strings('the name of a drive or block device', 256).default([]),
    disks: disksSchema().optional(),
    trialLoads: choice(['each', 'auto', 'first']).optional(),
    fence: choice(['external']).optional(),
  })
    .check(checkDisks)
    .check((context) => {
      const { value } = context;
      const { qmp, serial, network } = value;
      if (qmp === undefined && serial !== undefined) {
        problem(context, ['serial'], 'no serial without qmp: the serial port of a QEMU started here is ours');
      }
      for (const key of MANAGED_KEYS) {
        if (qmp === undefined || value[key] === undefined) continue;
        problem(context, [key], `no ${key} where qmp is given: that QEMU runs already`);
      }
      network.forEach((device, index) => {
        const plugs = PLUGS.filter((key) => device[key] !== undefined);
        if (qmp === undefined && plugs.length !== 1) {
          problem(context, ['network', index], 'one of tap, user, socket beside the id');
        }
        if (qmp !== undefined && Object.values(device).filter((given) => given !== undefined).length > 1) {
          problem(context, ['network', index], 'only the id of a netdev where qmp is given');
        }
      });
    })
    .transform(({ kind, qmp, serial, network, memory, ...rest }) => {
      const sharedDisks = sharedIn(rest);
      const disks = replicatedIn(rest.disks ?? {});
      if (qmp !== undefined) {
        const netdevs = network.map(({ id }) => id);
        return { kind, mode: 'attached' as const, qmp, serial, netdevs, sharedDisks, disks };
      }
      return {
        kind,
        mode: 'managed' as const,
        binary: rest.binary ?? 'qemu-system-x86_64',
        accelerator: rest.accelerator ?? 'kvm',
        machine: rest.machine ?? 'q35',
        cpu: rest.cpu,
        cpus: rest.cpus ?? 1,
        memoryBytes: memory ?? DEFAULT_QEMU_MEMORY_BYTES,
        memoryDirectory: rest.memoryDirectory,
        arguments: rest.arguments ?? [],
        dirty: rest.dirty ?? ('auto' as const),
        network: network.map(networkDevice),
        sharedDisks,
        disks,
        trialLoads: rest.trialLoads ?? ('auto' as const),
      };
    });
}

interface DisksGiven {
  readonly qmp?: string | undefined;
  readonly sharedDisks: readonly string[];
  readonly disks?: Disks | undefined;
  readonly fence?: 'external' | undefined;
}

function checkDisks(context: z.core.ParsePayload<DisksGiven>): void {
  const { qmp, sharedDisks, disks = {}, fence } = context.value;
  if (sharedIn(context.value).length > 0 && fence === undefined) problem(context, ['fence'], FENCE_NEEDED);
  for (const [name, { mode, size: given, preallocate }] of Object.entries(disks)) {
    if (mode === 'replicate' && sharedDisks.includes(name)) {
      problem(context, ['disks', name, 'mode'], 'shared, since sharedDisks names it');
    }
    if (qmp !== undefined && (given !== undefined || preallocate)) {
      const expected = 'no size and no preallocate where qmp is given: its disks are there';
      problem(context, ['disks', name], expected);
    }
  }
}

type Disks = Readonly<Record<string, z.output<ReturnType<typeof disksSchema>>[string]>>;

/** By either way to say so. */
function sharedIn({ sharedDisks, disks = {} }: DisksGiven): string[] {
  const also = Object.entries(disks).flatMap(([name, { mode }]) => (mode === 'shared' ? [name] : []));
  return [...new Set([...sharedDisks, ...also])];
}

function replicatedIn(disks: Disks) {
  const replicated = Object.entries(disks).filter(([, { mode }]) => mode === 'replicate');
  return Object.fromEntries(
    replicated.map(([name, { durability, size: bytes, preallocate }]) => [
      name,
      { durability, preallocate, ...(bytes !== undefined && { bytes }) },
    ]),
  );
}

function networkDevice({ id, mac, model, tap, user, socket }: Network[number]) {
  const backend =
    tap !== undefined
      ? { kind: 'tap' as const, interface: tap }
      : user !== undefined
        ? { kind: 'user' as const, options: user }
        : { kind: 'socket' as const, options: socket ?? '' };
  return { id, mac, model, backend };
}

export function hypervisorSchema(resolve: Resolve) {
  return z.discriminatedUnion('kind', [embeddedSchema(resolve), qemuSchema(resolve)], {
    error: 'a section with kind: embedded or kind: qemu',
  });
}

export type HypervisorConfig = z.output<ReturnType<typeof hypervisorSchema>>;
export type EmbeddedConfig = Extract<HypervisorConfig, { kind: 'embedded' }>;
export type QemuHypervisorConfig = Extract<HypervisorConfig, { kind: 'qemu' }>;
export type BootConfig = EmbeddedConfig['boot'];

/** The domain writes to disks that the other host sees: nobody may run it while somebody else may. */
export function sharesDisks(hypervisor: HypervisorConfig): boolean {
  return hypervisor.kind === 'qemu' && hypervisor.sharedDisks.length > 0;
}
