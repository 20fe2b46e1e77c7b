// The calls of the disk, as the worker answers them.

import { HypervisorError } from '../port.js';
import type { MachineDisk } from './machine-disk.js';
import type { DiskCalls } from './messages.js';

type DiskHandlers = {
  [K in keyof DiskCalls]: (argument: DiskCalls[K]['argument']) => DiskCalls[K]['result'];
};

/** `disk`: null if the machine has none. `requireCreated`: throws once the machine has run. */
export function diskHandlers(
  disk: () => MachineDisk | null,
  requireCreated: (call: string) => void,
): DiskHandlers {
  const required = (): MachineDisk => {
    const found = disk();
    if (found === null) throw new HypervisorError('WRONG_STATE', 'no disk of the domain is replicated');
    return found;
  };
  /** Whoever writes to it is the stream, or the guest. */
  const standing = (call: string): MachineDisk => {
    requireCreated(call);
    return required();
  };
  return {
    diskAttach: () => {
      required().attach();
    },
    diskKeep: () => required().keep(),
    diskRest: () => {
      required().rest();
    },
    diskSeal: () => required().seal(),
    diskRelease: ({ slabs }) => {
      required().release(slabs);
    },
    diskRead: ({ offset, length, slabs }) => {
      const [slab] = slabs;
      if (slab === undefined) throw new HypervisorError('WRONG_STATE', 'there is no slab to read into');
      return { ...required().read(offset, length, slab), slabs };
    },
    diskSums: ({ first, count }) => required().sums(first, count),
    diskBegin: (how) => {
      standing('disk begin').begin(how);
    },
    diskWrite: ({ extents, slabs }) => {
      const [data] = slabs;
      if (data !== undefined) standing('disk write').write(extents, data);
    },
    diskCommitted: () => {
      standing('disk commit').committed();
    },
    diskTaken: () => {
      required().dropStaged();
    },
    diskCopied: () => required().copied(),
    diskLoad: (copy) => {
      standing('disk load').load(copy);
    },
  };
}
