/* No Python: it saves at SIGTERM. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t told;
static void handler(int signum) { (void)signum; told = 1; }
static void pause_ms(long ms) { struct timespec left = {0, ms * 1000000}; while (nanosleep(&left, &left)) ; }

int main(void) {
    FILE *said = fopen("said", "a");
    setbuf(said, NULL);
    signal(SIGTERM, handler);
    fprintf(said, "start run %d TERM\n", (int)getpid());
    for (int i = 0; i < 600; i++) {
        pause_ms(100);
        if (told) {
            fprintf(said, "told run\n");
            pause_ms(300);
            fprintf(said, "SAVED run\n");
            return 0;
        }
    }
    return 1;
}
