// Memory beside guest RAM that a guest may write: the firmware of a microvm or an isapc, which other machine types
// protect. Where there is any, "info mtree" shows it, and each checkpoint needs the full state.
//
//   0000000000100000-0000000003ffffff (prio 0, ram): pc.ram @0000000000100000      guest RAM
//   00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios                       not the guest's to write
//   00000000ffff0000-00000000ffffffff (prio 0, ram): pc.bios                       written, maybe

import type { QmpClient } from '../monitor/qmp.js';

/** `ram`: the name of guest RAM's block. @throws as QmpClient.human() */
export async function hasWritableBlocks(qmp: QmpClient, ram: string): Promise<boolean> {
  return writableBlocksIn(await qmp.human('info mtree -f'), ram).length > 0;
}

/** Their names. */
export function writableBlocksIn(mtree: string, ram: string): string[] {
  const names = [...mtree.matchAll(/^\s+[0-9a-f]+-[0-9a-f]+ \(prio -?\d+, ram\): (\S+)/gm)].map(
    ([, name = '']) => name,
  );
  return [...new Set(names)].filter((name) => name !== ram);
}
