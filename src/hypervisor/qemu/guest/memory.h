// The working set: memory of which every word is known, so that a page lost, torn or restored from the wrong epoch
// shows. Word j of page i in generation g holds
//
//     (i+1) * 0x85ebca6b  ^  g * 0xc2b2ae35   +   j * 0x9e3779b9          (mod 2^32)
//
// which is also what the embedded machine's guest does. The page behind the last one holds the counter: its
// generation is the counter's value.
//
// The loops are for QEMU's emulation, where arithmetic on 64 bits costs half or a quarter of what vectors cost: the
// build command keeps the compiler from making vectors.

enum { PAGE_BYTES = 4096, PAGE_PAIRS = PAGE_BYTES / 8 };
enum { PAGES_MAX = 1 << 18 };  // 1 GiB
static const u32 WORD_STEP = 0x9e3779b9u;
static const u32 SCATTER = 389;  // prime: walks over all pages unless their number is a multiple of it
static const u64 SPARE_BYTES = 8 << 20;  // what the kernel keeps for itself

static u32 page_count;
static u32 cursor;
static u64 counter;
static u32 *generations;
static u64 (*working_set)[PAGE_PAIRS];

static u32 first_word(u32 page) {
  return (page + 1) * 0x85ebca6bu ^ generations[page] * 0xc2b2ae35u;
}

// Two words at a time, as they lie in memory.
static u64 word_pair(u32 first) {
  return first | (u64)(first + WORD_STEP) << 32;
}

static void write_page(u32 page) {
  u32 word = first_word(page);
  u64 *at = working_set[page];
  for (u32 j = 0; j < PAGE_PAIRS; j++, word += 2 * WORD_STEP) at[j] = word_pair(word);
}

static int page_is_bad(u32 page) {
  u32 word = first_word(page);
  u64 differs = 0;
  const u64 *at = working_set[page];
  for (u32 j = 0; j < PAGE_PAIRS; j++, word += 2 * WORD_STEP) differs |= at[j] ^ word_pair(word);
  return differs != 0;
}

static void *new_memory(u64 bytes) {
  long at = CALL6(mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  return (void *)need(at, "mmap");
}

static void make_working_set(u32 pages) {
  struct sysinfo memory;
  need(CALL1(sysinfo, &memory), "sysinfo");
  u64 bytes = (u64)(pages + 1) * (PAGE_BYTES + sizeof(u32));
  if (bytes + SPARE_BYTES > (u64)memory.freeram * memory.mem_unit) refuse("more pages than free memory");
  page_count = pages;
  generations = new_memory((pages + 1) * sizeof(u32));
  working_set = new_memory((u64)(pages + 1) * PAGE_BYTES);
  for (u32 page = 0; page <= pages; page++) write_page(page);
}

// Scattered over the working set, each page with its next generation.
static void rewrite_pages(u32 count) {
  u32 scatter = page_count % SCATTER == 0 ? 1 : SCATTER;
  while (count--) {
    cursor = (cursor + scatter) % page_count;
    generations[cursor]++;
    write_page(cursor);
  }
}

// One word of the page rewritten last.
static void spoil(void) { working_set[cursor][2] ^= 1; }

static int counter_is_bad(void) {
  return generations[page_count] != (u32)counter || page_is_bad(page_count);
}

static u64 next_count(void) {
  generations[page_count] = (u32)++counter;
  write_page(page_count);
  return counter;
}

static u32 bad_pages(void) {
  u32 bad = (u32)counter_is_bad();
  for (u32 page = 0; page < page_count; page++) bad += (u32)page_is_bad(page);
  return bad;
}
