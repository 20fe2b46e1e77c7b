// Which hypervisor runs a domain, and what the domain is. One section for each hypervisor, told apart by `kind`; a new
// hypervisor adds its section to the union at the end.

import { z } from 'zod';
import { pathField, type Resolve, section, size, text, wholeNumber } from './fields.js';

/** A page, and the guest's count of how often it rewrote it. */
const WORKING_SET_PAGE_OCTETS = 4096 + 4;
const MEBIBYTE = 2 ** 20;

/** The first megabyte is the PC's, the second holds the guest itself. */
const GUEST_RESERVED_OCTETS = 2 * MEBIBYTE;
/** The emulator puts an initrd at 64 MiB at most. */
const INITRD_MEMORY_OCTETS = 64 * MEBIBYTE;

/** The guest that Romulus brings: it rewrites memory at a known rate, and checks it. */
function guestSchema() {
  return section({
    dirtyPages: wholeNumber(0, 2 ** 19).default(200),
    workingSetPages: wholeNumber(1, 2 ** 19).default(1024),
    tickMs: wholeNumber(1, 60_000, 'a whole number of milliseconds from 1 to 60000').default(50),
  }).check((context) => {
    const { dirtyPages, workingSetPages } = context.value;
    if (dirtyPages <= workingSetPages) return;
    context.issues.push({
      code: 'custom',
      path: ['dirtyPages'],
      input: dirtyPages,
      message: `at most guest.workingSetPages (${workingSetPages})`,
    });
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
    const issue = (key: string | null, input: unknown, message: string) =>
      context.issues.push({ code: 'custom', path: key === null ? [] : [key], input, message });
    if ([kernel, multiboot, disk, cdrom, floppy].every((source) => source === undefined)) {
      issue(null, context.value, 'something to boot: one of kernel, multiboot, disk, cdrom, floppy');
    }
    // The emulator brings no BIOS, and without one it boots multiboot images only.
    if (bios === undefined && multiboot === undefined) issue('bios', bios, 'a BIOS, or a multiboot image');
    if (bios === undefined && kernel !== undefined) issue('kernel', kernel, 'no kernel without bios');
    if (initrd !== undefined && kernel === undefined) issue('initrd', initrd, 'no initrd without kernel');
    if (commandLine !== undefined && kernel === undefined && multiboot === undefined) {
      issue('commandLine', commandLine, 'no commandLine without kernel or multiboot');
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
      if (guest && image) {
        context.issues.push({
          code: 'custom',
          path: ['image'],
          input: image,
          message: 'either guest or image, not both',
        });
      }
      if (image?.initrd !== undefined && memory < INITRD_MEMORY_OCTETS) {
        context.issues.push({
          code: 'custom',
          path: ['memory'],
          input: memory,
          message: 'at least 64MiB where image.initrd is given',
        });
      }
      if (image) return;
      const workingSetPages = guest?.workingSetPages ?? guestSchema().parse({}).workingSetPages;
      const room = Math.max(0, Math.floor((memory - GUEST_RESERVED_OCTETS) / WORKING_SET_PAGE_OCTETS));
      if (workingSetPages <= room) return;
      context.issues.push({
        code: 'custom',
        path: ['guest', 'workingSetPages'],
        input: workingSetPages,
        message: `at most ${room} pages in this memory, not ${workingSetPages}`,
      });
    })
    .transform(({ kind, memory, guest, image }) => ({
      kind,
      memoryBytes: memory,
      boot: image
        ? { kind: 'image' as const, ...image }
        : { kind: 'guest' as const, ...(guest ?? guestSchema().parse({})) },
    }));
}

export function hypervisorSchema(resolve: Resolve) {
  return z.discriminatedUnion('kind', [embeddedSchema(resolve)], {
    error: 'a section with kind: embedded',
  });
}

export type HypervisorConfig = z.output<ReturnType<typeof hypervisorSchema>>;
export type EmbeddedConfig = Extract<HypervisorConfig, { kind: 'embedded' }>;
export type BootConfig = EmbeddedConfig['boot'];
export type GuestConfig = Extract<BootConfig, { kind: 'guest' }>;
export type ImageConfig = Extract<BootConfig, { kind: 'image' }>;
