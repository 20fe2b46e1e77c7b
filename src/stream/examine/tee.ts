// One walk, two visitors.

import type { StreamVisitor } from './walk.js';

export function tee(one: StreamVisitor, other: StreamVisitor): StreamVisitor {
  return {
    finding: (...about) => {
      one.finding?.(...about);
      other.finding?.(...about);
    },
    xl: (...about) => {
      one.xl?.(...about);
      other.xl?.(...about);
    },
    libxl: (...about) => {
      one.libxl?.(...about);
      other.libxl?.(...about);
    },
    libxc: (...about) => {
      one.libxc?.(...about);
      other.libxc?.(...about);
    },
    backChannel: () => {
      one.backChannel?.();
      other.backChannel?.();
    },
    wrapper: (...about) => {
      one.wrapper?.(...about);
      other.wrapper?.(...about);
    },
    pageEntries: (...about) => {
      one.pageEntries?.(...about);
      other.pageEntries?.(...about);
    },
    record: (...about) => {
      one.record?.(...about);
      other.record?.(...about);
    },
    checkpoint: (...about) => {
      one.checkpoint?.(...about);
      other.checkpoint?.(...about);
    },
  };
}
