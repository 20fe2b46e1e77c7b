// Mistakes that can be planted into the protocol, where its decisions are carried out: each must be found. None is known
// to src/.

export const PLANTS = {
  'alone-unasked': 'an owner whose link is lost lets its output pass before the register has granted that',
  'takeover-unasked': 'a standby takes over without writing that into the register',
  'release-early': 'output passes while the write by which the domain becomes paired is under way',
  'cold-boot': 'an owner that comes back while the register is paired boots the domain anew',
  'late-ack': 'an acknowledgement that was read after a stop of the process lets output out',
  'lost-reply': 'a write whose reply was lost is taken for one that was refused',
  'stale-standby': 'a standby takes over with a checkpoint that is not of the stream in the register',
} as const;

export type Plant = keyof typeof PLANTS;

export function isPlant(name: string): name is Plant {
  return Object.hasOwn(PLANTS, name);
}
